"""Pages and plots made of recordings and results: reports, comparisons, one run over time."""
