"""Who may do what: keys, the gate every request passes, limits for each key, and the audit log."""
