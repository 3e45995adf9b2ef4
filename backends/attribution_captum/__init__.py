"""The techniques by Captum."""
