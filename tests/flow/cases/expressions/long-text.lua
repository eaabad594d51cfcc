-- bad text
value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value .. value
