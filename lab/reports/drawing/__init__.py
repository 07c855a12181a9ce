"""Plots drawn from CSV files alone, with matplotlib and nothing else.

A report puts a copy of this folder beside its plots, so that each can be drawn again, and changed, without navarch.
"""
