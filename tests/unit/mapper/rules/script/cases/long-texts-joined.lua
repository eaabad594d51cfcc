-- version: 1
-- error: E5055 E5056
return function(frame)
  local a = ('x'):rep(65536)
  while #a < 3000000 do a = a .. a end
  local joined
  while true do
    joined = a .. 1 joined = a .. 2 joined = a .. 3 joined = a .. 4 joined = a .. 5 joined = a .. 6 joined = a .. 7
  end
end
