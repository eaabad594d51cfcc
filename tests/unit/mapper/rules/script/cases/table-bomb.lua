-- version: 1
-- error: E5056 E5055
return function(frame)
  local t = {}
  while true do t[#t + 1] = {1, 2, 3, 4} end
end
