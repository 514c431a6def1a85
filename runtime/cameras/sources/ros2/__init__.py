"""ROS 2 camera drivers over Zenoh, and bags."""
