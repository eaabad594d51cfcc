-- version: 1
-- Tells when a temperature is too high: on at 80, off below 75, so that a value at the limit does not flutter.
-- Row of drivers.yml:
--   rules:
--     hot: { kind: lua, file: alarm_temp.lua, inputs: ["*.temp"] }

outputs = { ["{tag}.hot"] = "bool" }
state_version = 1
state = { hot = {} }

function on_frame(frame)
  local was_hot = state.hot[frame.tag] or false
  local is_hot = frame.value > (was_hot and 75 or 80)
  if is_hot == state.hot[frame.tag] then return nil end
  state.hot[frame.tag] = is_hot
  if is_hot then log(frame.tag .. " is at " .. frame.value .. " " .. frame.unit) end
  return { tag = frame.tag .. ".hot", value = is_hot }
end

-- Without a temperature nobody knows whether it is hot: the quality says why.
function on_bad(frame)
  state.hot[frame.tag] = nil
  return { tag = frame.tag .. ".hot", quality = frame.quality }
end
