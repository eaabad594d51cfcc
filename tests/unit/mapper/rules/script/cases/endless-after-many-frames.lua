-- version: 1
-- error: E5055 E5054
return function(frame)
  local frames, one = {}, { value = 1 }
  for place = 1, 9999 do frames[place] = one end
  setmetatable(frames, {__index = function() while true do end end, __len = function() while true do end end})
  while true do frames[1] = one end
end
