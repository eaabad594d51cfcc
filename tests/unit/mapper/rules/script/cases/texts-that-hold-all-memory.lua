-- version: 1
-- error: E5056 E5055
local kept = {}
return function(frame)
  local place = 0
  while true do
    place = place + 1
    kept[place] = ('z'):rep(60000) .. place
  end
end
