"""One experiment carried out: trained, watched, forecast, evaluated."""
