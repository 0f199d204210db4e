"""Ray: layout, workers, tasks, and what they cost. Only this package and the commands import Ray."""
