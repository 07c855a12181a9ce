"""CertificateSigningRequests: which are approved without a person, how they are signed, when they go."""
