"""What ``navarch describe`` says, one file a kind; laid out as kubectl does."""
