"""Output of ``navarch describe``, one file a kind; laid out as kubectl does."""
