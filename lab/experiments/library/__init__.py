"""The library of measures: functions on a recording, a file a subject. Pure."""
