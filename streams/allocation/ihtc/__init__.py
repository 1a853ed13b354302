"""The problem of the Integrated Healthcare Timetabling Competition 2024 (IHTC-2024, ihtc2024.github.io): read, judged
and solved. Admit patients, give each a room and a theatre, give every occupied room a nurse in each shift. Pure.
"""
