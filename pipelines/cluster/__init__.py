"""Ray: layout, workers, tasks and their costs. Only this package and `pipelines.study` import Ray."""
