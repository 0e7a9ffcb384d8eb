"""Plans and settings against each other, with intervals: what ``tpo study`` runs."""
