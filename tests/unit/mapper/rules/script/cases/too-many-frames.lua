-- version: 1
-- error: E5054 E5055
return function(frame)
  local frames, one = {}, { value = 1 }
  for place = 1, 10001 do frames[place] = one end
  return frames
end
