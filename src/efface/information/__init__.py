"""How much a record told the model: neighbourhood, curvature, what leaving it out changes."""
