"""The four techniques by Captum."""
