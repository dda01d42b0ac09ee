"""fixations: pictures with the eye fixations of many viewers, and boxes that these rank."""
