"""Many videos: idempotent jobs that any number of workers share through the output folder."""
