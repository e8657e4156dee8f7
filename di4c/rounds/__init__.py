"""Students of students: rounds of distillation from one spec."""
