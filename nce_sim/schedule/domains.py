"""The two domains, by name."""

PROTECTED = "protected"
UNPROTECTED = "unprotected"
DOMAINS = (PROTECTED, UNPROTECTED)
"""In the order in which the bus and the controller serve them."""

FOREIGN = {PROTECTED: UNPROTECTED, UNPROTECTED: PROTECTED}
"""The other domain."""
