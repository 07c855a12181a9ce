"""Service addresses on one node: cluster IPs and node ports as nftables rules, and the cluster's DNS."""
