-- version: 1
-- error: E5055 E5054
local list = {}
for place = 1, 7000 do list[place] = place end
return function(frame)
  while true do
    local a = {unpack(list)} a = {unpack(list)} a = {unpack(list)} a = {unpack(list)} a = {unpack(list)}
  end
end
