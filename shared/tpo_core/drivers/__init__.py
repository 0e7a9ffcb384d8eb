"""Who runs what when, in threads or in an event loop."""
