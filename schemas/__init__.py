"""What a record is: envelope, topics, stores, marks, wire formats and one file a domain. Pure: no I/O in here."""
