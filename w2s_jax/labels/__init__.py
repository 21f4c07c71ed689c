"""Where weak labels come from (sources), and what is done to them before a student learns them (transforms)."""
