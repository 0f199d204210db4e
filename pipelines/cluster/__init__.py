"""Ray: layout, workers, tasks, and their costs. Only this package and the commands import Ray."""
