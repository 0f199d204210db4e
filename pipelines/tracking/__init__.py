"""MLflow and other sinks, into which a study's files are projected. The files stay the truth."""
