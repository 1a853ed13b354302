"""Who lies where, who works where: plans of a hospital's beds, theatres and nurses. Pure."""
