"""Plugins of a node make themselves known: CSI drivers, and device plugins that do not register by themselves."""
