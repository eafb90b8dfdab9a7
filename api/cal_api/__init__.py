"""The REST facade: translates REST into reads and writes of our resources, and nothing else. It spends no money, holds no
provider credentials and keeps no state that a restart would lose."""
