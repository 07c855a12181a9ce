"""SPDY/3.1, as far as Kubernetes' streams use it: kubectl's exec, attach and port-forward speak it after an upgrade.

``frames`` is the wire format (pure), ``connection`` the streams of one connection. There is no flow control by windows:
Kubernetes' own implementation has none either. A reader that falls behind holds the whole connection up.
"""
