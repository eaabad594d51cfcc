-- version: 1
-- error: E5056
return function(frame)
  local text = 'x'
  while true do text = text .. text end
end
