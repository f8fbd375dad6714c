"""How fast it is, beside what it must be compared with: one run, one machine, one table.

Every figure of ours is taken from the log times of a real Kafka that separate processes wrote to, with acks=all, SCRAM,
the rights of production and every signature checked. Nothing asserts: a timing on a busy machine is noise.
"""
