"""Rules: stateful logic over tags that publishes derived rows: windows, alarms, scripts, models."""
