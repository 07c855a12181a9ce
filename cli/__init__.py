"""The command ``navarch``: lab verbs (cli/verbs/lab.py) and verbs for people without kubectl."""
