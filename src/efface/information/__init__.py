"""How much a record told the model: its neighbourhood, its curvature, what leaving it out changes."""
