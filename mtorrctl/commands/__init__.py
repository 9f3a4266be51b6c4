"""What people type: a module for each family of commands, imported when one of them is used."""
