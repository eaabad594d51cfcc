-- fine text
value .. value .. value .. value
