"""The study: its configuration and its stages in order. How a stage talks to Ray, MLflow or a disk is elsewhere."""
