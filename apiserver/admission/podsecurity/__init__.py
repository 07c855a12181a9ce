"""The Pod Security Standards, and the admission that holds pods to them."""
