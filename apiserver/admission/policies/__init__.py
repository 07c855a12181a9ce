"""ValidatingAdmissionPolicy: admission by expressions in CEL."""
