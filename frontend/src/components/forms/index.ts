/** Controls of forms whose settings the server describes. */
export { default as SettingField } from './SettingField.vue'
