"""The command ``navarch``: lab verbs (cli/labs.py) and verbs for people without kubectl."""
