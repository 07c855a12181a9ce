"""The cri runtime: containerd or another runtime that speaks CRI, in place of crun under conmon."""
