"""The scheduler: queue -> filter -> score -> reserve -> bind, over a columnar table of nodes.

A reader starts at cycle.py (one decision, pure), then nodes.py (the table), plugin.py (the extension points) and the
plugins, one a file; queue.py and scheduler.py are the shell that feeds them.
"""
