"""VerticalPodAutoscaler: requests of pods from what their containers have used. An add-on: `navarch up --vpa`."""
